//! The suites that every Store, Queue and Allowance must pass
