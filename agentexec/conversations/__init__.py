"""Conversations in the record: their messages, their history, and what a turn takes of them."""
