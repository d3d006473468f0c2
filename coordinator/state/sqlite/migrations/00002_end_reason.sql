-- +goose Up
ALTER TABLE streams ADD COLUMN end_reason TEXT NOT NULL DEFAULT '';
