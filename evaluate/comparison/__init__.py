"""Compares methods: runs searches and retrainings, reads their run folders, writes the report."""
