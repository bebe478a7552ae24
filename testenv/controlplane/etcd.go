package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

const etcdSocket = "etcd.sock"

// startEtcd runs an etcd of one member in this process. The API server reaches it by a unix
// socket in DIR, so that neither a port nor a certificate of its own is needed.
func startEtcd(o *options) error {
	if !o.resume {
		if err := os.RemoveAll(o.path("etcd")); err != nil {
			return err
		}
	}
	if err := os.Remove(o.path(etcdSocket)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	loopback := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	config := embed.NewConfig()
	config.Name = "testenv"
	config.Dir = o.path("etcd")
	config.ListenClientUrls = []url.URL{{Scheme: "unix", Path: o.path(etcdSocket)}}
	config.AdvertiseClientUrls = []url.URL{loopback}
	config.ListenPeerUrls = []url.URL{loopback}
	config.AdvertisePeerUrls = []url.URL{loopback}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = !o.fsync
	config.LogLevel = "error"

	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return nil
	case err := <-etcd.Err():
		return fmt.Errorf("etcd: %w", err)
	case <-time.After(readyTimeout):
		return errors.New("etcd: not ready in time")
	}
}
