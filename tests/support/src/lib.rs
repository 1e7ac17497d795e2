//! Starts, breaks and stops the real servers that the tests and the demo run against.
