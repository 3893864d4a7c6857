#!/bin/sh
# A fence hook: switches a silent node's host off, so that the other node may continue.
#
#   on_silent_peer = "fence"
#   fence_hook = "/etc/ckptd/fence-hook.sh"
#
# ckptd runs it with the silent node's id as its last argument, and in the environment
#   CKPTD_FENCE_NODE   the node to switch off (the same id)
#   CKPTD_NODE         the node that runs the hook
#
# THE CONTRACT. Exit code 0 says: that node's ckptd serves no client any more, and does not again
# before it is restarted. ckptd believes this. If it is not true, two nodes serve the same
# checkpoints, and one of the two histories is lost. Anything else (another exit code, a signal, no
# end within fence_timeout_ms) proves nothing: the node continues to wait, and runs the hook again.
#
# So: do not exit with 0 because a command was *sent*. Ask until the power *is* off. The hook must be
# safe to run twice. It runs without a shell and without input; what it prints goes to ckptd's log.

set -eu

node=${1:?node id}

# One management controller for each host, in a file that only ckptd's user can read:
#   host1  10.0.9.1  admin  /etc/ckptd/ipmi-password
controllers=/etc/ckptd/controllers

controller() {
    while read -r name address user password_file; do
        if [ "$name" = "$node" ]; then
            # ipmitool -I lanplus -H "$address" -U "$user" -f "$password_file" chassis power "$1"
            echo "would ask $address as $user ($password_file): power $1" >&2
            return
        fi
    done <"$controllers"
    echo "no controller is known for node $node" >&2
    return 1
}

controller off
for _ in 1 2 3 4 5 6 7 8; do
    case $(controller status) in
        *"is off"*) echo "node $node is off"; exit 0 ;;
    esac
    sleep 1
done
echo "node $node was told to switch off, and is not off" >&2
exit 1
