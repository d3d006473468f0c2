-- A plan that is made while the tables are empty finds names by this index, whatever else an index would do as well (package comment).

-- +goose Up
DROP INDEX prefixes_name;
CREATE UNIQUE INDEX prefixes_name ON prefixes (sha256(prefix::bytea), project);
