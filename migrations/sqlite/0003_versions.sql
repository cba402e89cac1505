-- The newest version of each name, so that the version of a model that was deleted is not given again.
CREATE TABLE versions (
    name TEXT PRIMARY KEY NOT NULL,
    newest INTEGER NOT NULL
) STRICT;

INSERT INTO versions (name, newest) SELECT name, max(version) FROM models GROUP BY name;
