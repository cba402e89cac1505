//! The harness: a teacher with exact faults, folders of data, and the binary under test as processes of their own.

pub mod binary;
pub mod data;
pub mod s3;
pub mod teacher;
