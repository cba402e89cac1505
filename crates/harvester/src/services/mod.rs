//! The gRPC services. In each call, messages become domain types, and one call of a port or of the harvester follows.

mod datasets;
mod distillations;
mod models;
mod rationales;
mod respond;
mod runs;

use crate::shared::Shared;
use std::sync::Arc;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use wire::v1::datasets_service_server::DatasetsServiceServer;
use wire::v1::distillations_service_server::DistillationsServiceServer;
use wire::v1::models_service_server::ModelsServiceServer;
use wire::v1::rationales_service_server::RationalesServiceServer;
use wire::v1::runs_service_server::RunsServiceServer;

/// All services of the harvester.
pub(crate) fn routes(shared: &Arc<Shared>) -> Routes {
    let mut routes = Routes::builder();
    macro_rules! add {
        ($($server:ident($service:expr)),+ $(,)?) => {$(
            routes.add_service(
                $server::new($service)
                    .max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(wire::MESSAGE_BYTES_MAX)
                    .accept_compressed(CompressionEncoding::Gzip)
                    .send_compressed(CompressionEncoding::Gzip),
            );
        )+};
    }
    add!(
        DatasetsServiceServer(datasets::Datasets(Arc::clone(shared))),
        DistillationsServiceServer(distillations::Distillations(Arc::clone(shared))),
        RationalesServiceServer(rationales::Rationales(Arc::clone(shared))),
        RunsServiceServer(runs::Runs(Arc::clone(shared))),
        ModelsServiceServer(models::ModelsOf(Arc::clone(shared))),
    );
    routes.routes()
}
