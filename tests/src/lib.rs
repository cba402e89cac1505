//! The test harness: a scripted teacher, folders of data, private servers, and the binary under test in processes of its own.

pub mod binary;
pub mod cluster;
pub mod collector;
pub mod data;
pub mod folder;
pub mod postgres;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod s3;
pub mod scrape;
pub mod screen;
pub mod service;
pub mod teacher;

mod server;
