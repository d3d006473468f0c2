//go:build unix

package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// PostgreSQL refuses to run as root; it runs as somebody else then.
func owner() (uid, gid int, err error) {
	if os.Getuid() != 0 {
		return os.Getuid(), os.Getgid(), nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("testkit: nobody to run PostgreSQL as: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// giveAway makes the directory the owner's.
func giveAway(dir string) error {
	uid, gid, err := owner()
	if err != nil {
		return err
	}
	return os.Chown(dir, uid, gid)
}

// asOwner makes the command run as the owner. That there is one was checked by giveAway.
func asOwner(cmd *exec.Cmd) {
	if uid, gid, err := owner(); err == nil && uid != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
}
