SELECT row_index, example
FROM examples
WHERE dataset_id = $1 AND row_index >= $2
ORDER BY row_index
LIMIT $3
