"""The command line. Every verb has a file; none imports more than its own work needs."""
