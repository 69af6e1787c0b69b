"""The verdict: pure judgement of a history, and of a database through a way to query that it is handed."""
