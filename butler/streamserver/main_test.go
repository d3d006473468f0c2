//go:build unix

package streamserver

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childEnv makes the test binary a program that opens streams at the address in it.
const childEnv = "STREAMSERVER_TEST_CHILD"

func TestMain(m *testing.M) {
	if address := os.Getenv(childEnv); address != "" {
		if err := burst(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
