//! Simulated services.
