//! What each method needs of its caller: one table over everything that is served. A path that is not in it is refused.

/// What a caller must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: probes carry no token.
    Nothing,
    /// A token of any role.
    Token,
    /// To look.
    Read,
    /// To import rows, to submit, cancel and resume jobs, and to ask again.
    Submit,
    /// To delete, and to register what students start from.
    Operate,
    /// To carry out runs.
    Work,
}

/// How long a method's answer lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// It ends by itself.
    ForItsWork,
    /// Until the caller leaves: the server ends it when it closes the connection, and the caller calls again.
    UntilLeft,
}

/// A method as the ingress sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Method {
    /// `/package.Service/Method`.
    pub(crate) path: &'static str,
    pub(crate) needs: Needs,
    pub(crate) lasts: Lasts,
}

/// Every method that is served, with what it needs.
pub(crate) const METHODS: &[Method] = &[
    call("/distillery.v1.DatasetsService/CreateDataset", Needs::Submit),
    call("/distillery.v1.DatasetsService/UploadRows", Needs::Submit),
    call("/distillery.v1.DatasetsService/CommitDataset", Needs::Submit),
    call("/distillery.v1.DatasetsService/GetDataset", Needs::Read),
    call("/distillery.v1.DatasetsService/ListDatasets", Needs::Read),
    call("/distillery.v1.DatasetsService/StreamRows", Needs::Read),
    call("/distillery.v1.DatasetsService/DeleteDataset", Needs::Operate),
    call("/distillery.v1.DistillationsService/SubmitDistillation", Needs::Submit),
    call("/distillery.v1.DistillationsService/EstimateDistillation", Needs::Submit),
    call("/distillery.v1.DistillationsService/GetDistillation", Needs::Read),
    call("/distillery.v1.DistillationsService/ListDistillations", Needs::Read),
    watch("/distillery.v1.DistillationsService/WatchDistillation", Needs::Read),
    call("/distillery.v1.DistillationsService/CancelDistillation", Needs::Submit),
    call("/distillery.v1.DistillationsService/ResumeDistillation", Needs::Submit),
    call("/distillery.v1.DistillationsService/DeleteDistillation", Needs::Operate),
    call("/distillery.v1.RationalesService/ListRationales", Needs::Read),
    call("/distillery.v1.RationalesService/StreamRationales", Needs::Read),
    call("/distillery.v1.RationalesService/ListParkedPrompts", Needs::Read),
    call("/distillery.v1.RationalesService/RetryParkedPrompts", Needs::Submit),
    call("/distillery.v1.RationalesService/ForgetRationales", Needs::Submit),
    call("/distillery.v1.RationalesService/JudgeRationales", Needs::Read),
    call("/distillery.v1.RunsService/CreateRun", Needs::Submit),
    call("/distillery.v1.RunsService/ListRuns", Needs::Read),
    call("/distillery.v1.RunsService/LeaseRun", Needs::Work),
    call("/distillery.v1.RunsService/StreamExamples", Needs::Work),
    call("/distillery.v1.RunsService/ReportRun", Needs::Work),
    call("/distillery.v1.RunsService/SaveResumePoint", Needs::Work),
    call("/distillery.v1.RunsService/StartEvaluating", Needs::Work),
    call("/distillery.v1.RunsService/PublishRun", Needs::Work),
    call("/distillery.v1.RunsService/FailRun", Needs::Work),
    call("/distillery.v1.RunsService/ReleaseRun", Needs::Work),
    call("/distillery.v1.RunsService/GetRun", Needs::Read),
    call("/distillery.v1.RunsService/ListMetrics", Needs::Read),
    call("/distillery.v1.ModelsService/GetModel", Needs::Read),
    call("/distillery.v1.ModelsService/ListModels", Needs::Read),
    // Inference services follow the models with a worker's token, people with any other.
    watch("/distillery.v1.ModelsService/WatchModels", Needs::Token),
    call("/distillery.v1.ModelsService/DeleteModel", Needs::Operate),
    call("/distillery.v1.ModelsService/RegisterBaseModel", Needs::Operate),
    call("/distillery.v1.InferenceService/Predict", Needs::Read),
    call("/distillery.v1.InferenceService/PredictBatch", Needs::Read),
    call("/distillery.v1.InferenceService/Explain", Needs::Read),
    call("/distillery.v1.InferenceService/PredictAndExplain", Needs::Read),
    call("/distillery.v1.InferenceService/Generate", Needs::Read),
    call("/distillery.v1.InferenceService/ListServedModels", Needs::Read),
    call("/inference.GRPCInferenceService/ServerLive", Needs::Nothing),
    call("/inference.GRPCInferenceService/ServerReady", Needs::Nothing),
    call("/inference.GRPCInferenceService/ModelReady", Needs::Read),
    call("/inference.GRPCInferenceService/ServerMetadata", Needs::Token),
    call("/inference.GRPCInferenceService/ModelMetadata", Needs::Read),
    call("/inference.GRPCInferenceService/ModelInfer", Needs::Read),
    call("/grpc.health.v1.Health/Check", Needs::Nothing),
    watch("/grpc.health.v1.Health/Watch", Needs::Nothing),
    watch("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Needs::Token),
    watch("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Needs::Token),
];

const fn call(path: &'static str, needs: Needs) -> Method {
    Method { path, needs, lasts: Lasts::ForItsWork }
}

const fn watch(path: &'static str, needs: Needs) -> Method {
    Method { path, needs, lasts: Lasts::UntilLeft }
}

/// The method at `path`.
pub(crate) fn find(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use prost_types::FileDescriptorSet;
    use std::collections::BTreeSet;

    fn paths(descriptors: &[u8]) -> BTreeSet<String> {
        let set = FileDescriptorSet::decode(descriptors).unwrap();
        let mut found = BTreeSet::new();
        for file in set.file {
            for service in &file.service {
                for method in &service.method {
                    found.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        found
    }

    #[test]
    fn every_method_that_is_served_is_in_the_table_once() {
        let mut served = paths(wire::DESCRIPTORS);
        assert!(served.len() > 30, "{served:?}");
        served.extend(paths(tonic_health::pb::FILE_DESCRIPTOR_SET));
        served.extend(paths(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET));
        served.extend(paths(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET));
        let known: BTreeSet<String> = METHODS.iter().map(|method| method.path.to_owned()).collect();
        assert_eq!(known, served);
        assert_eq!(known.len(), METHODS.len(), "a path stands twice");
    }

    #[test]
    fn only_probes_need_no_token() {
        let open: Vec<&str> = METHODS
            .iter()
            .filter(|method| method.needs == Needs::Nothing)
            .map(|method| method.path)
            .collect();
        let probes = [
            "/inference.GRPCInferenceService/ServerLive",
            "/inference.GRPCInferenceService/ServerReady",
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
        ];
        assert_eq!(open, probes);
        assert_eq!(find("/distillery.v1.DatasetsService/Invented"), None);
    }
}
