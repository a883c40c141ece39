"""What a study's commands share: its config, data sets, runs and scores."""
