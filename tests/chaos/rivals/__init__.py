"""The kill schedule of the chaos runs on other task queues, each in an environment of its own."""
