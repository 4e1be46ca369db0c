//! The data plane alone with the allocator of the system.

#[global_allocator]
static ALLOCATOR: std::alloc::System = std::alloc::System;

fn main() -> anyhow::Result<()> {
    keyward_bench::plane::run()
}
