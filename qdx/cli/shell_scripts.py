"""Scripts with which shells complete command lines of qdx; see `qdx.cli.complete` for what they ask and are told.

No word of an answer is ever evaluated as code: names in it may come from the folders of strangers.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SCRIPTS"]

_BASH: Final = r"""# Completion of qdx for bash. For every shell, put this line in ~/.bashrc; for this one, run it:
#   source <(qdx completion bash)
# Where that is too slow, write the script once: qdx completion bash > ~/.local/share/bash-completion/completions/qdx
_qdx() {
    local start="${COMP_WORDS[COMP_CWORD]}" program="${1/#\~/$HOME}" files="" word _
    local -a paths=()
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        if [[ -z $files ]]; then
            files=$word
        else
            COMPREPLY+=("$word")
        fi
    done < <("$program" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    # Behind `--option=` bash takes what follows for the word.
    [[ $start == "=" ]] && start=""
    case $files in
        folders) paths=(-d) ;;
        files) paths=(-f) ;;
        files\ *) paths=(-f -X "!*.${files#files }") ;;
        *) return ;;
    esac
    compopt -o filenames 2>/dev/null
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(compgen "${paths[@]}" -- "$start"; [[ $files == files\ * ]] && compgen -d -- "$start")
}
complete -F _qdx qdx
"""

_ZSH: Final = r"""#compdef qdx
# Completion of qdx for zsh. For every shell, put this line in ~/.zshrc, behind compinit; for this one, run it:
#   source <(qdx completion zsh)
# Or write the script once, as a file of the name _qdx, into a folder of $fpath.
_qdx() {
    local -a answer described
    local files line
    answer=("${(@f)$(${~words[1]} __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    files=$answer[1]
    for line in "${(@)answer[2,-1]}"; do
        described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    (( $#described )) && _describe -V 'qdx' described
    [[ $PREFIX == --*=* ]] && compset -P '*='
    case $files in
        folders) _files -/ ;;
        files) _files ;;
        files\ *) _files -g "*.${files#files }" ;;
    esac
}
if [[ $funcstack[1] == _qdx ]]; then
    _qdx "$@"
else
    compdef _qdx qdx
fi
"""

_FISH: Final = r"""# Completion of qdx for fish. For every shell, write it where fish looks; for this one, pipe it into `source`:
#   qdx completion fish > ~/.config/fish/completions/qdx.fish
#   qdx completion fish | source
function __qdx_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l answer ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
    for line in $answer[2..-1]
        echo $line
    end
    switch "$answer[1]"
        case folders
            __fish_complete_directories "$current"
        case files
            __fish_complete_path "$current"
        case 'files *'
            __fish_complete_suffix ".$(string split ' ' -- $answer[1])[2]"
    end
end
complete -c qdx -f -a '(__qdx_complete)'
"""

SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
"""By the name of the shell."""
