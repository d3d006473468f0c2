package testkit

import "os/exec"

func giveAway(string) error { return nil }

func asOwner(*exec.Cmd) {}
