"""Values of users as the database keeps them: encrypted where there are keys."""
