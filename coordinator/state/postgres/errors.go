package postgres

import (
	"fmt"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/pgdb"
)

// wrap says what failed. Errors of our own kinds, and context errors, need no more words.
func wrap(err error, format string, args ...any) error {
	if err == nil || fault.KindOf(err) != fault.Internal {
		return err
	}
	return pgdb.Classify(fmt.Errorf("coordinator state: "+format+": %w", append(args, err)...))
}
