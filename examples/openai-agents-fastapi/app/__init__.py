"""Application that researches companies: a web API and page, agents on workers, and one database for both."""
