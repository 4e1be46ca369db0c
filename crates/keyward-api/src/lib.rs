//! The wire contract of Keyward: operations, bodies, error codes, OpenAPI.
