//! What many keys cost: `scale memory --keys 1000000`, `scale start --keys 1000000`.
//!
//! `memory` fills a key set and nothing else, and looks keys up beside a bare table of entries as
//! large. `start` fills a store, starts a node on it and sends requests through its layer: with
//! every key in memory, and with room for only a part of them. Both print one line of JSON for
//! each size and engine.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

mod machine;
mod memory;
mod product;
mod start;

use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What many keys cost in memory, at start and at look-up.
#[derive(Parser)]
struct Options {
    /// What is measured.
    what: What,
    /// How many keys; several sizes with commas between them.
    #[arg(long, value_delimiter = ',', default_value = "10000,1000000")]
    keys: Vec<usize>,
    /// Look-ups that are timed.
    #[arg(long, default_value_t = 200_000)]
    look_ups: usize,
    /// Of `start`: one key in so many fits into the memory of the bounded node.
    #[arg(long, default_value_t = 10)]
    one_in: usize,
    /// Of `start`: requests that are under way at once.
    #[arg(long, default_value_t = 16)]
    at_once: usize,
    /// Of `start`: only this engine; PostgreSQL needs `script/postgres-test-server`.
    #[arg(long)]
    engine: Option<Engine>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The key set alone.
    Memory,
    /// A node on a store.
    Start,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Sqlite,
    Postgres,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    for &keys in &options.keys {
        match options.what {
            What::Memory => println!("{}", memory::measure(keys, options.look_ups)?),
            What::Start => {
                let runtime = tokio::runtime::Runtime::new()?;
                for figures in runtime.block_on(start::measure(keys, &options))? {
                    println!("{figures}");
                }
            }
        }
    }
    Ok(())
}
