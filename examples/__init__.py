"""Programs and configs that show hotprompt at work; run as `python -m examples.NAME`. Not installed."""
