"""Where clients' rows come from, and how one data set is divided among simulated clients."""
