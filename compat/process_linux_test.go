package compat_test

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel end the child when the tests end, even by a panic.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
