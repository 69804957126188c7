"""Print the script that completes commands, options and names in a shell: bash (4.4 or later), zsh or fish.

The names of watchers and instances come from the running service; without one there are none.

  bash:  source <(changewire completion bash)       in ~/.bashrc

  zsh:   source <(changewire completion zsh)        in ~/.zshrc, after compinit

  fish:  changewire completion fish | source        in ~/.config/fish/config.fish

Exit codes: 0 success, 2 for wrong arguments.
"""

from typing import Annotated, Literal

import typer

from app.cli import OK, say, typed

Shell = Literal["bash", "zsh", "fish"]

app = typed.application(None)


@app.command(help=__doc__)
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)],
) -> int:
    say(SCRIPTS[shell].strip("\n"))
    return OK


# The command that is being typed answers itself: `app/cli/candidates.py` has the protocol.

BASH = r"""
_changewire() {
    local value
    COMPREPLY=()
    while IFS= read -r value; do
        case $value in
            :files) compopt -o default ;;
            *) COMPREPLY+=("$value") ;;
        esac
    done < <("${1/#\~/$HOME}" __complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
}
complete -F _changewire changewire
"""

ZSH = r"""
#compdef changewire
_changewire() {
    local value text
    local -a found
    while IFS=$'\t' read -r value text; do
        if [[ $value == :files ]]; then
            _files
            return
        fi
        found+=("${value//:/\\:}${text:+:$text}")
    done < <("${(Q)~words[1]}" __complete zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)
    (( $#found )) && _describe -V changewire found
}
compdef _changewire changewire
"""

FISH = r"""
function __changewire_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l found ($words[1] __complete fish $words[2..-1] "$current" 2>/dev/null)
    if test "$found" = ":files"
        complete -C "'' $current"
    else if set -q found[1]
        printf '%s\n' $found
    end
end
complete -c changewire -f -a '(__changewire_complete)'
"""

SCRIPTS: dict[Shell, str] = {"bash": BASH, "zsh": ZSH, "fish": FISH}
