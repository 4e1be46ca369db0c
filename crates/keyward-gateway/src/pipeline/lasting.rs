//! A permitted request that lasts.

use keyward_core::decision::Permit;

use crate::pipeline::Exchange;
use crate::proxy::Standing;

impl Exchange<'_> {
    /// What is asked about again while a permitted request lasts.
    pub(crate) fn standing(&self, permit: &Permit<'_>) -> Option<Standing> {
        let key = self.record.key.as_ref()?;
        let position = self.plane.product.catalog.routes().element_offset(permit.route())?;
        Some(Standing {
            request_id: self.record.request_id,
            key: key.id,
            begun_ns: self.record.started_ns,
            client: self.record.client,
            environment: key.environment,
            route: u32::try_from(position).ok()?,
        })
    }
}
