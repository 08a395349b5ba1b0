"""Fill tables with asynchronous work, mostly model calls, from synchronous code."""
