//! A stateful product API made from an OpenAPI document.
