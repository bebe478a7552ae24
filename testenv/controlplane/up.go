package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const pollEvery = 50 * time.Millisecond

// Files in DIR by which `up` and its caller talk.
const (
	apiReadyFile = "api-ready" // with --hold-controllers: the API server answers
	goFile       = "go"        // made by the caller: start the controllers
	readyFile    = "ready"     // everything is up
)

// up brings the cluster up and stays until it is asked to end (SIGTERM, SIGINT, --parent-pid) or a part of it dies.
func up(args []string) (err error) {
	// The children are bound to the thread that starts them, see supervisor.start.
	runtime.LockOSThread()
	started := time.Now()
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if o.dirIsOurs {
		defer os.RemoveAll(o.dir)
	}
	lock, err := lockDir(o)
	if err != nil {
		return err
	}
	defer lock.Close()
	stale := []string{apiReadyFile, goFile, readyFile}
	if !o.resume {
		stale = append(stale, "audit.log")
	}
	for _, name := range stale {
		if err := os.Remove(o.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}

	s, err := newSupervisor(o.dir)
	if err != nil {
		return err
	}
	defer s.killAll()
	if o.parentPID != 0 {
		if err := s.endWith(o.parentPID); err != nil {
			return err
		}
	}
	err = bringUp(o, s, started)
	if err == nil {
		fmt.Println(o.path("kubeconfig"))
		<-s.ctx.Done()
		err = context.Cause(s.ctx)
	}
	if errors.Is(err, errAskedToEnd) {
		return nil
	}
	return err
}

// lockDir keeps a second `up` out of a directory in use.
func lockDir(o *options) (*os.File, error) {
	lock, err := os.OpenFile(o.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another control plane is running in %s", o.dir)
	}
	return lock, nil
}

func bringUp(o *options, s *supervisor, started time.Time) error {
	if !o.resume {
		if err := writePKI(o); err != nil {
			return err
		}
	}
	if err := startEtcd(o); err != nil {
		return err
	}
	args, err := apiServerArgs(o)
	if err != nil {
		return err
	}
	if err := s.start(apiServerName, args); err != nil {
		return err
	}
	client, err := newClient(o)
	if err != nil {
		return err
	}
	err = s.poll("kube-apiserver's /readyz", readyTimeout, pollEvery, func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	if err != nil {
		return err
	}
	apiReady := time.Since(started)
	if o.holdControllers {
		if err := holdControllers(o, s); err != nil {
			return err
		}
	}
	if o.nodeName != "" {
		if err := startNode(o, s); err != nil {
			return err
		}
	}
	if err := s.start(controllerManagerName, controllerManagerArgs(o)); err != nil {
		return err
	}
	// Pods and tokens need this account; that it is there shows that the controllers work.
	err = s.poll("the default ServiceAccount", readyTimeout, pollEvery, func(ctx context.Context) error {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return err
	}
	if o.nodeName != "" {
		if err := waitForNode(o, s, client); err != nil {
			return err
		}
	}
	summary := fmt.Sprintf("ready after %.1f s (API after %.1f s): %s", time.Since(started).Seconds(), apiReady.Seconds(), o.server())
	fmt.Fprintln(os.Stderr, "controlplane:", summary)
	return writeFile(o.path(readyFile), summary+"\n")
}

// holdControllers lets the caller install its kinds first. The garbage collector looks for new kinds
// every 30 s only: of those that it finds at its start, orphans are gone after a second.
func holdControllers(o *options, s *supervisor) error {
	if err := writeFile(o.path(apiReadyFile), o.server()+"\n"); err != nil {
		return err
	}
	return s.poll(goFile, 0, pollEvery/2, func(context.Context) error {
		_, err := os.Stat(o.path(goFile))
		return err
	})
}

func newClient(o *options) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", o.path("kubeconfig"))
	if err != nil {
		return nil, err
	}
	config.Timeout = 2 * time.Second
	config.QPS = -1 // polling is slow enough without a limit
	return kubernetes.NewForConfig(config)
}
