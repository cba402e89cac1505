//! The harness: a teacher with exact faults, folders of data, private servers, and the binary under test as processes of
//! their own.

pub mod binary;
pub mod collector;
pub mod data;
pub mod folder;
pub mod postgres;
pub mod redis;
pub mod s3;
pub mod scrape;
pub mod service;
pub mod teacher;

mod server;
