//! `distillery health`: whether a server serves, for people and for probes.

use crate::args::HealthArguments;
use crate::exit::Usage;
use crate::target::{connect, each, unless_interrupted};
use crate::terminal::{print_json, print_line};
use anyhow::bail;
use app::admin;
use app::client::{Health, on_this_machine};
use app::config::{Config, ServerSection};
use tokio_util::sync::CancellationToken;

/// See [`crate::args::Verb::Health`].
pub(crate) async fn health(
    config: Config,
    arguments: HealthArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if arguments.admin {
        let (address, health) = unless_interrupted(&shutdown, admin::ask(&config.admin)).await?;
        return told(&arguments, &format!("http://{address}"), health);
    }
    let urls = arguments.server.url().map_or_else(|| here(&config.server), str::to_owned);
    let mut last = None;
    // Where several are named, all of them have to serve: the first that does not is told.
    for url in each(&urls) {
        let health = ask(&config, &arguments, url, &shutdown).await?;
        last = Some((url, health));
        if health != Health::Serving {
            break;
        }
    }
    let (url, health) = last.ok_or_else(|| Usage("--server: names no server".to_owned()))?;
    told(&arguments, url, health)
}

async fn ask(
    config: &Config,
    arguments: &HealthArguments,
    url: &str,
    shutdown: &CancellationToken,
) -> anyhow::Result<Health> {
    unless_interrupted(shutdown, async {
        let channel = connect(&config.client, url, &arguments.server).await?;
        app::client::health(channel, &arguments.service).await
    })
    .await
}

/// Tells the health of a server.
fn told(arguments: &HealthArguments, url: &str, health: Health) -> anyhow::Result<()> {
    let service = arguments.service.as_str();
    let state = match health {
        Health::Serving => "serving",
        Health::NotServing => "not_serving",
        Health::Unknown => "unknown",
    };
    if arguments.json {
        print_json(&serde_json::json!({"server": url, "service": service, "state": state}))?;
    }
    match health {
        Health::Serving if arguments.json => Ok(()),
        Health::Serving => print_line(&format!("{url}: serving")),
        Health::NotServing => bail!("{url}: not serving (it starts, loads its models, or drains)"),
        Health::Unknown => bail!("{url}: there is no service `{service}`"),
    }
}

/// Where a server with this section is reached from its own machine.
fn here(section: &ServerSection) -> String {
    let scheme = if section.tls_certificate.as_os_str().is_empty() { "http" } else { "https" };
    format!("{scheme}://{}", on_this_machine(section.listen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_this_machine_is_found_by_its_own_section() {
        let check = |listen: &str, certificate: &str, wanted: &str| {
            let mut section = Config::load(None, []).unwrap().server;
            section.listen = listen.parse().unwrap();
            section.tls_certificate = certificate.into();
            assert_eq!(here(&section), wanted);
        };
        check("127.0.0.1:7070", "", "http://127.0.0.1:7070");
        check("0.0.0.0:7070", "", "http://127.0.0.1:7070");
        check("[::]:7070", "cert.pem", "https://[::1]:7070");
        check("10.1.2.3:7070", "", "http://10.1.2.3:7070");
    }
}
