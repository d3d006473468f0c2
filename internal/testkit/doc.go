// Package testkit runs Daybook as its users do and checks what comes back: the real binary as a process on a temporary
// directory, killed and restarted at will; a network proxy that cuts, stalls, delays, refuses and loses; generated output
// of every awkward kind; and a comparison that names the first differing byte of streams of any length.
//
// A package that starts the binary or a Writer has a TestMain that calls Main:
//
//	func TestMain(m *testing.M) { testkit.Main(m) }
//
//	func TestSurvivesKill(t *testing.T) {
//		h := testkit.NewHouse(t)
//		server := h.Serve()
//		gate := testkit.NewGate(t)
//		w := testkit.Writer{Stdout: testkit.Content{Kind: testkit.Lines, Seed: 1, Size: 1 << 20}, Gate: gate.Addr()}
//		run := h.Start(append([]string{"run", "--prefix", "p", "--"}, w.Args()...)...)
//		gate.Await(run)
//		server.Kill()
//		server.Restart()
//		gate.Open()
//		run.Wait()
//		…
//	}
//
// Every wait has an end: what does not happen within Patience fails the test, with the output of the processes in its log.
// Everything started is stopped when the test ends. The kit has no clock of its own, since tests of time use
// testing/synctest, and no file system, since faults of the disk come from internal/vfs.
//
// Functions and methods may be called from several goroutines, except those that fail a test: these belong to the
// goroutine that runs it.
package testkit
