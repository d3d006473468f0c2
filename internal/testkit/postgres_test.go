package testkit

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// What a killed server had committed is there when it starts again, and databases are empty and apart.
func TestPostgres(t *testing.T) {
	p := NewPostgres(t)
	one, two := p.Database(t), p.Database(t)
	exec := func(address, statement string) error {
		conn, err := pgx.Connect(t.Context(), address)
		if err != nil {
			return err
		}
		defer conn.Close(t.Context())
		_, err = conn.Exec(t.Context(), statement)
		return err
	}
	if err := exec(one, "CREATE TABLE found (n integer)"); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if err := exec(one, "SELECT 1"); err == nil {
		t.Error("a killed server answers")
	}
	p.Restart(t)
	if err := exec(one, "SELECT n FROM found"); err != nil {
		t.Error(err)
	}
	if err := exec(two, "SELECT n FROM found"); err == nil {
		t.Error("two databases are one")
	}
}
