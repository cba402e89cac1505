//! The test harness: a scripted teacher, folders of data, private servers, and the binary under test in processes of its own.

pub mod binary;
pub mod calls;
pub mod cluster;
pub mod collector;
pub mod data;
pub mod dice;
pub mod effort;
pub mod folder;
pub mod frames;
pub mod hostile;
pub mod mutation;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod s3;
pub mod scrape;
pub mod screen;
pub mod service;
pub mod teacher;

mod server;
