"""Methods side by side: searches and retrainings started, their run folders read and compared."""
