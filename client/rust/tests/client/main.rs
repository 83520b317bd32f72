//! Tests of the client against servers of the tree.

mod blocks;
mod connections;
mod examples;
mod publishing;
mod reading;
mod runs;
mod support;
