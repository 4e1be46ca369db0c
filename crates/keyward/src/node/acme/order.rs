//! One order: from the account to the certificate (RFC 8555 §7.4).

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use instant_acme::{
    AuthorizationHandle, AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use keyward_core::time::Timestamp;
use keyward_gateway::Certificate;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use zeroize::Zeroizing;

use super::account::Accounts;
use super::folder::{AcmeFolder, Answered};

/// How long the authority may take to look at the challenges, and to issue.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));

/// Orders a certificate for the names of this folder and keeps it there.
///
/// # Errors
/// Why there is none; what was kept before stays.
pub(super) async fn order(
    accounts: &Accounts<'_>,
    folder: &AcmeFolder,
    now: Timestamp,
) -> anyhow::Result<Certificate> {
    let mut order = begin(accounts, folder).await?;
    let answered = answer(&mut order, folder).await?;
    let status = order.poll_ready(&PATIENCE).await;
    if !matches!(status, Ok(OrderStatus::Ready)) {
        let refused = refusals(&mut order).await;
        return Err(match status {
            _ if !refused.is_empty() => anyhow!("{}", refused.join("; ")),
            Err(error) => anyhow!(error).context("the order did not become ready"),
            Ok(status) => anyhow!("the order did not become ready, it is {status:?}"),
        });
    }
    drop(answered);
    let key = KeyPair::generate().context("no key could be made")?;
    let mut params = CertificateParams::new(folder.domains())?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    order.finalize_csr(request.der()).await.context("the request was not accepted")?;
    let chain = order.poll_certificate(&PATIENCE).await.context("nothing was issued")?;
    let key = Zeroizing::new(key.serialize_pem());
    let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes());
    let certificate = certificate.context("what was issued cannot be used")?;
    certificate.check(now).context("what was issued cannot be used")?;
    if let Some(name) = folder.domains().iter().find(|name| !certificate.is_for(name)) {
        bail!("what was issued is not for {name}");
    }
    folder.keep_certificate(&chain, &key).context("the certificate cannot be written")?;
    Ok(certificate)
}

/// Places an order; with another account when the authority does not know the kept one any more.
async fn begin(accounts: &Accounts<'_>, folder: &AcmeFolder) -> anyhow::Result<Order> {
    let names: Vec<Identifier> = folder.domains().iter().cloned().map(Identifier::Dns).collect();
    let wanted = NewOrder::new(&names);
    let placed = match accounts.kept().await? {
        Some(account) => match account.new_order(&wanted).await {
            Err(instant_acme::Error::Api(problem)) if is_unknown_account(&problem) => {
                tracing::warn!(%problem, "the authority does not know the account; making another");
                accounts.make().await?.new_order(&wanted).await
            }
            placed => placed,
        },
        None => accounts.make().await?.new_order(&wanted).await,
    };
    placed.context("the order was not accepted")
}

fn is_unknown_account(problem: &Problem) -> bool {
    let kind = problem.r#type.as_deref();
    kind == Some("urn:ietf:params:acme:error:accountDoesNotExist")
}

/// Has every name that is not proven yet answered for, and tells the authority.
async fn answer(order: &mut Order, folder: &AcmeFolder) -> anyhow::Result<Vec<Answered>> {
    let mut answered = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(found) = authorizations.next().await {
        let authorization = found.context("an authorization cannot be read")?;
        match authorization.status {
            AuthorizationStatus::Valid => {}
            AuthorizationStatus::Pending => {
                answered.push(prove(authorization, folder).await?);
            }
            status => bail!("the authorization of {} is {status:?}", authorization.identifier()),
        }
    }
    Ok(answered)
}

async fn prove(
    mut authorization: AuthorizationHandle<'_>,
    folder: &AcmeFolder,
) -> anyhow::Result<Answered> {
    let name = authorization.identifier().to_string();
    let named = || format!("the challenge of {name}");
    let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
        bail!("the authority offers no tls-alpn-01 for {name}");
    };
    let pem = challenge_pem(&name, challenge.key_authorization().digest().as_ref());
    let answered = folder.answer(&name, &pem.with_context(named)?).with_context(named)?;
    challenge.set_ready().await.with_context(named)?;
    Ok(answered)
}

/// The certificate that answers a challenge, with its key (RFC 8737 §3).
fn challenge_pem(name: &str, digest: &[u8]) -> Result<Zeroizing<String>, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?.pem();
    let key = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!("{certificate}{}", *key)))
}

/// What the authority says of the names that it could not make sure of.
async fn refusals(order: &mut Order) -> Vec<String> {
    let mut refusals = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(found) = authorizations.next().await {
        let Ok(mut authorization) = found else { continue };
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier();
        let errors = authorization.challenges.iter().filter_map(|it| it.error.as_ref());
        refusals.extend(errors.map(|error| format!("{name}: {error}")));
    }
    refusals
}
