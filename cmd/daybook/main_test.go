package main

import (
	"os"
	"testing"
)

// asProgram makes the test binary stand in for the program.
const asProgram = "DAYBOOK_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(program(os.Args[1:]))
	}
	os.Exit(m.Run())
}
