SELECT name, manifest_sha256, created_at FROM base_models WHERE name = $1
