"""The documentation: its pages, the checks of them (`docs.checks`) and what its site is made with (`docs.site`)."""
