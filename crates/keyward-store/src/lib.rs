//! Everything of Keyward that outlives a request: SQL, the change log, leases.
