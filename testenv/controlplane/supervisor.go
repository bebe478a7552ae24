package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// readyTimeout bounds every wait of the start. A warm start takes 3 s; a loaded machine gets its chance.
const readyTimeout = 120 * time.Second

// errAskedToEnd is the one cause of ending that is not a failure.
var errAskedToEnd = errors.New("asked to end")

// supervisor keeps the children. Its context ends, with the reason as its cause, as soon as one of
// them dies: a cluster without one of its parts would only make tests fail in a way hard to read.
type supervisor struct {
	ctx      context.Context
	end      context.CancelCauseFunc
	dir      string
	self     string
	running  sync.WaitGroup
	children []*exec.Cmd
}

func newSupervisor(dir string) (*supervisor, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &supervisor{dir: dir, self: self}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		s.end(errAskedToEnd)
	}()
	return s, nil
}

// start runs this binary again as the named component, with DIR/NAME.log and DIR/NAME.pid.
// The kernel kills the child when the THREAD that made it is gone, so the caller has to be
// locked to its own.
func (s *supervisor) start(name string, args []string) error {
	log, err := os.Create(s.dir + "/" + name + ".log")
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own copy
	child := exec.Command(s.self, append([]string{name}, args...)...)
	child.Stdout, child.Stderr = log, log
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.children = append(s.children, child)
	s.running.Go(func() {
		s.end(fmt.Errorf("%s is gone (%v), see %s", name, child.Wait(), log.Name()))
	})
	return writeFile(s.dir+"/"+name+".pid", strconv.Itoa(child.Process.Pid)+"\n")
}

// killAll ends the children at once. An orderly stop takes them 6 to 9 s, for data that is thrown away.
func (s *supervisor) killAll() {
	for _, child := range s.children {
		_ = child.Process.Kill() // it may be gone already
	}
	s.running.Wait()
}

// endWith ends everything when the process is gone, also if it was killed and nobody has waited for it.
func (s *supervisor) endWith(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("--parent-pid %d: %w", pid, err)
	}
	go func() {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				s.end(errAskedToEnd)
				return
			}
		}
	}()
	return nil
}

// poll asks until the answer is yes. It gives up with the supervisor, or after the limit (0: never).
func (s *supervisor) poll(what string, limit time.Duration, every time.Duration, done func(context.Context) error) error {
	ctx := s.ctx
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := done(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case <-ctx.Done():
			return fmt.Errorf("%s: not there after %v: %w", what, limit, err)
		case <-tick.C:
		}
	}
}

// writeFile makes the file appear with its whole content: others wait for it by name.
func writeFile(name, content string) error {
	if err := os.WriteFile(name+".tmp", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}
