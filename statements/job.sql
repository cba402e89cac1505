SELECT id, spec, dataset_id, state, reason, resume_state, created_at, updated_at, run_id, model_id,
    teacher_accuracy, harvest_seconds, train_seconds, evaluate_seconds, traceparent
FROM distillations
WHERE id = $1
