//! Databases, clocks, upstreams and actors for the tests of Keyward.
