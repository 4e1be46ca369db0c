//! The errors an operation can answer with, from its shape.

use keyward_core::ErrorCode;

use super::{Access, Operation};

const CREDENTIAL: &[ErrorCode] = &[
    ErrorCode::MissingApiKey,
    ErrorCode::AmbiguousApiKey,
    ErrorCode::InvalidApiKey,
    ErrorCode::ExpiredApiKey,
    ErrorCode::Unauthorized,
];
const ALWAYS: &[ErrorCode] = &[
    ErrorCode::InvalidRequest,
    ErrorCode::InvalidPath,
    ErrorCode::CredentialInUrl,
    ErrorCode::HeadersTooLarge,
    ErrorCode::RateLimited,
    ErrorCode::Internal,
    ErrorCode::Unavailable,
];
const BODY: &[ErrorCode] =
    &[ErrorCode::PayloadTooLarge, ErrorCode::UnsupportedMediaType, ErrorCode::ValidationFailed];
const IDEMPOTENCY: &[ErrorCode] =
    &[ErrorCode::IdempotencyInProgress, ErrorCode::IdempotencyKeyReused];

impl Operation {
    /// Every error it can answer with, in the order of the error reference.
    pub fn errors(&self) -> Vec<ErrorCode> {
        let groups: [(bool, &[ErrorCode]); 8] = [
            (true, ALWAYS),
            (true, self.also),
            (self.access != Access::Public, CREDENTIAL),
            (self.scope.is_some(), &[ErrorCode::Forbidden]),
            (self.scope.is_some(), &[ErrorCode::RbacDenied]),
            (self.path.contains('{'), &[ErrorCode::NotFound]),
            (self.is_mutation(), &[ErrorCode::Conflict]),
            (self.query.is_some(), &[ErrorCode::ValidationFailed]),
        ];
        let shaped = [(self.request.is_some(), BODY), (self.idempotent, IDEMPOTENCY)];
        let mut errors: Vec<ErrorCode> = groups
            .into_iter()
            .chain(shaped)
            .filter(|(applies, _)| *applies)
            .flat_map(|(_, codes)| codes.iter().copied())
            .collect();
        errors.sort_unstable();
        errors.dedup();
        errors
    }
}
