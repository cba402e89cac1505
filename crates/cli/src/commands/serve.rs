//! `distillery serve`: the services.

use crate::args::{RoleName, ServeArguments};
use crate::terminal::print_line;
use app::config::Config;
use app::serve::{Roles, Serving};
use tokio_util::sync::CancellationToken;

/// See [`crate::args::Verb::Serve`].
pub(crate) async fn serve(
    mut config: Config,
    arguments: ServeArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if let Some(address) = arguments.listen {
        config.server.listen = address;
    }
    let serving = Serving::open(config, roles(&arguments)).await?;
    print_line(&format!("listening at {}", serving.url()))?;
    serving.run(shutdown).await
}

/// The roles that are asked for.
pub(crate) fn roles(arguments: &ServeArguments) -> Roles {
    let is = |role: RoleName| arguments.role.contains(&role) || arguments.role.contains(&RoleName::All);
    Roles {
        harvester: is(RoleName::Harvester),
        trainer: is(RoleName::Trainer),
        inference: is(RoleName::Inference),
    }
}
